# env SLUICE_VAR_count=many
# -var list=["a"
# -var port=80
# -var-file bad.vars
variable "count" {
  type = number
}
variable "list" {
  type = list(string)
}
variable "needed" {
  type = string
}
variable "broken" {
  type    = number
  default = "x"
}
variable "typo" {
  type = strin
}
variable "port" {
  type = number
  validation {
    condition     = var.port > 1024
    error_message = "Port ${var.port} needs privilege."
  }
}
variable "filed" {
  type = bool
}
variable "refers" {
  default = var.port
}
locals {
  a = local.b
  b = local.a
}
pipeline "local" {
  source "netlink" {}
  sink "log" {
    factor = var.count
    fields = var.list
    key    = var.needed
  }
}
