"""The segments of a film made in other processes, here or on the nodes of a Ray cluster: the same bits as by one."""
