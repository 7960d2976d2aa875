# -var sync_interfac=eth3
# -var novalue
variable "sync_interface" {
  default = "eth2"
}
locals {
  port = 3780
}

pipeline "local" {
  source "netlink" {
    coalesce = var.colaesce
  }
  sink "multicast" {
    group     = "225.0.0.500"
    interface = var.sync_interfaces
    port      = local.prot
    address   = self.address
    checksum  = lowr("TRUE")
  }
}
