variable "1x" { default = 1 }
pipeline "kernel" {
  source "netlink" {}
  sink "log" {}
}
pipeline "a.b" {
  source "netlink" { name = "x y" }
  sink "log" { name = var.none }
}
pipeline "" {
  source "netlink" {}
  sink "log" { name = "" }
}
