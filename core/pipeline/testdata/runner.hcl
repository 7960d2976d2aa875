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
}
pipeline "local" {
  source "netlink" {}
  sink "log" {}
}
