_TRIO_CHARDEV_COMPLETE=fish_source trio-chardev | source
