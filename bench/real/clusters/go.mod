module reconciler.dev/bench/clusters

go 1.23
