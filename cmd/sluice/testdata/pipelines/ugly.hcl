pipeline "local" {
    source   "netlink" {}


  sink "kernel" {
  scope="local"
  }
}