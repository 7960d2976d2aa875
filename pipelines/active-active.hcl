# Two firewalls that both carry traffic, and where packets of one connection may
# take either: a multipath route, or OSPF with equal costs. What one learns must
# be in the other's kernel before the next packet, so nothing waits: no hold,
# and coalesce is "0s". conntrackd calls it CacheWriteThrough On (later
# DisableExternalCache).
#
# Each node owns the flows whose packets it sees. What the peer ends here lives
# on for destroy_grace, since this node may still carry it; nothing is swept
# across nodes, the kernel's timeouts do that.
#
# Run it on both nodes, with the same values. Give net.netfilter.nf_conntrack_max
# room for the flows of both.

variable "sync_interface" {
  description = "The dedicated link between the firewalls."
  default     = "eth2"
}

variable "sync_network" {
  description = "The network on that link."
  default     = "192.168.100.0/24"
}

variable "own_addresses" {
  description = "Addresses and networks of the firewalls themselves, of both nodes."
  type        = list(string)
  default     = ["192.168.0.1", "192.168.0.2", "192.168.1.1", "192.168.1.2"]

  validation {
    condition     = length(var.own_addresses) > 0
    error_message = "Name the firewalls' own addresses: flows to them must not be replicated."
  }
}

locals {
  group = "225.0.0.50"
  port  = 3780
}

runner {
  # Events must not wait while the processors are busy with packets. conntrackd
  # takes this scheduler by itself.
  scheduler {
    type     = "rr"
    priority = 1
  }
}

# What this node carries, to its peer.
pipeline "local" {
  source "netlink" {
    coalesce = "0s" # every event at once, at the price of more CPU an event
  }

  filter "basic" {
    protocol {
      accept = ["tcp", "udp", "icmp", "icmpv6"]
    }
    address {
      ignore = concat(["127.0.0.0/8", "::1", var.sync_network], var.own_addresses)
    }
  }

  # Remembers what is sent, so that a peer that starts can have it all. Flows
  # that came from the peer are known here as foreign, and never sent back,
  # until a packet of theirs comes through this node.
  cache "memory" {
    limit = 262144
  }

  sink "multicast" {
    group       = local.group
    port        = local.port
    interface   = var.sync_interface
    send_buffer = "4MiB"
  }
}

# What the peer carries, into this node's kernel at once.
pipeline "peers" {
  source "multicast" {
    group          = local.group
    port           = local.port
    interface      = var.sync_interface
    receive_buffer = "8MiB"
    accept_from    = [var.sync_network]
    coalesce       = "0s"
  }

  cache "memory" {
    limit = 262144
  }

  sink "kernel" {
    scope         = "local"
    destroy_grace = "10s"

    # No commit_timeout: a flow is to live here as long as at the peer.
  }
}
