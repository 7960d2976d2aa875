pipeline "local" {
  source "netlink" {
    buffer_size =
  }
  sink "log" {
