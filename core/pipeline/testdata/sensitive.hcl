# -var key=hunter2
variable "key" {
  sensitive = true
}
pipeline "local" {
  source "netlink" {}
  sink "log" {
    key = lower(var.key)
  }
}
