runner {
  nane = "fw1"
  control {
    pth = "/run/x"
  }
}

pipeline "local" {
  source "netlink" {
    bufer_size = "2MiB"
    coalesce   = "soon"
  }
  sink "log" {
    nonsense = true
  }
}
