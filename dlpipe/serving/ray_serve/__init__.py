"""The same server on a Ray cluster: Ray Serve's proxies take requests, replicas on its nodes answer them.

deploying  `dlpipe serve --ray-address`: the application on the cluster, from its start to its end
checks     whether a cluster can serve: packages, ports, room
places     where models, tables and journals are: the same for all nodes
replica    a process that answers
shared     what replicas tell each other: used rates and quotas, numbers for Prometheus
proxy      answers of Ray's proxy in our words, and a second try for a request whose replica died
"""
