runner {
  name        = "two words"
  plugin_path = ["/good", "plugins"]
  control {
    path    = "/run/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789.sock"
    backlog = 0
  }
  log {
    level  = "verbose"
    format = "jsno"
    syslog = "local8"
  }
  scheduler {
    type = "fofi"
  }
}
pipeline "local" {
  source "netlink" {}
  sink "log" {}
}
