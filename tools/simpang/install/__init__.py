"""What `simpang gateway install` puts on a machine: systemd unit, user, udev rules."""
