"""Where the work of builds and of tuning is done: in processes of this machine, or on the nodes of a Ray cluster."""
