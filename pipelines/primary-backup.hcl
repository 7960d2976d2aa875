# Two firewalls, one of which carries the traffic: the primary. The backup
# learns every flow of it, keeps them aside, and puts them into its kernel when
# it takes over (`sluice role primary`, from keepalived's notify).
#
# This is the NOTRACK example of conntrackd's documentation, with its values.
# The comments name the old directive and, where one would choose something
# else today, what and why. Run it on both nodes; only sync_address and name
# differ:
#
#   sluice run -f primary-backup.hcl -var sync_address=192.168.100.200

variable "sync_interface" {
  description = "The dedicated link between the firewalls."
  default     = "eth2" # Multicast { Interface }
}

variable "sync_address" {
  description = "This node's address on that link."
  default     = "192.168.100.100" # Multicast { IPv4_interface }
}

runner {
  # conntrackd has no names for nodes. Leave it out and it is the host's.
  name = "fw1"

  # General { LockFile }. Today: leave it out, for "/run/sluice/sluice.lock".
  # conntrackd does not start where this file is: remove it to go back to it.
  lock_file = "/var/lock/conntrack.lock"

  control {
    # General { UNIX { Path, Backlog } }. Today: leave both out. Everybody may
    # make files in /tmp; the default, "/run/sluice/control.sock", is also where
    # the commands look without --socket.
    path    = "/tmp/sync.sock"
    backlog = 20
  }

  log {
    # General { LogFile on }, which meant /var/log/conntrackd.log. Today: leave
    # it out. The log then goes to standard error, thus to the journal.
    file = "/var/log/sluice.log"

    # General { Syslog }, off in the example. "daemon" was its usual facility.
    syslog = ""
  }

  # General { Scheduler }. Not in the example, since conntrackd takes "rr" and 99
  # by itself. A firewall under load is busy with packets, and this must not
  # wait; 1 is enough to come before all that is not real-time. A vendor's
  # plugins never get it.
  scheduler {
    type     = "rr"
    priority = 1
  }
}

# What this node carries, to its peer.
pipeline "local" {
  source "netlink" {
    # General { SocketBufferSize, SocketBufferSizeMaxGrown }. Today: leave both
    # out, for "2MiB" and "8MiB". An event takes 1280 bytes of the buffer, so
    # the old sizes overrun after 200 to 500 events: 10 ms at 50,000 a second.
    buffer_size     = 262142
    buffer_size_max = 655355

    # New: how long events are gathered while they keep coming. The first after
    # quiet never waits.
    coalesce = "2ms"
  }

  # General { Filter { Protocol Accept, Address Ignore } }, From Userspace: it
  # stands above the cache, so the cache holds nothing else.
  filter "basic" {
    # Today: add "udp", "icmp" and whatever else should outlive a takeover.
    protocol {
      accept = ["tcp"]
    }
    # The firewall's own addresses: only forwarded flows are worth replicating.
    # Today: add the link's whole network, and what you have of IPv6.
    address {
      ignore = [
        "127.0.0.1",     # loopback
        "192.168.0.100", # virtual address 1
        "192.168.1.100", # virtual address 2
        "192.168.0.1",
        "192.168.1.1",
        var.sync_address, # dedicated link
      ]
    }
  }

  # conntrackd's internal cache. General { HashLimit }; HashSize has no
  # counterpart, since the table grows by itself. Today: what
  # net.netfilter.nf_conntrack_max allows, on both nodes, or leave it out.
  cache "memory" {
    limit = 65535
  }

  # General { Filter { State Accept } }, commented out in the example as well.
  # Below the cache it sees whole flows, so that it can judge every update.
  #
  # filter "basic" {
  #   name = "state"
  #   state {
  #     accept = ["ESTABLISHED", "CLOSED", "TIME_WAIT", "CLOSE_WAIT"]
  #   }
  # }

  sink "multicast" {
    group       = "225.0.0.50"       # Multicast { IPv4_address }
    port        = 3780               # Multicast { Group }
    interface   = var.sync_interface # Multicast { Interface }
    address     = var.sync_address   # Multicast { IPv4_interface }. Today: leave it out if the interface has but one.
    send_buffer = 1249280            # Multicast { McastSndSocketBuffer, later SndSocketBuffer }
    checksum    = true               # Checksum on
  }
}

# What the peer carries, aside until the takeover.
pipeline "peers" {
  source "multicast" {
    group          = "225.0.0.50"
    port           = 3780
    interface      = var.sync_interface
    receive_buffer = 1249280 # Multicast { McastRcvSocketBuffer, later RcvSocketBuffer }. Today: "8MiB".

    # New, and recommended: whose messages are taken. The protocol has no
    # authentication; without this line whoever reaches the link is a peer.
    # accept_from = ["192.168.100.0/24"]

    # Mode NOTRACK { StartupResync }. On by default here: a node that starts
    # asks for everything.
    # request_resync = false
  }

  # conntrackd's external cache, which `hold` makes of it: CacheWriteThrough
  # (later DisableExternalCache) is off in the example.
  cache "memory" {
    limit = 65535
    hold  = true
  }

  sink "kernel" {
    # New: what a purge may delete, which is what the filters of that pipeline
    # accept. conntrackd purges by its one Filter.
    scope = "local"

    # Mode NOTRACK { CommitTimeout }. Today: leave it out. A committed flow then
    # lives as long as it would have at the node that it comes from, so that
    # idle connections outlive a takeover, too.
    commit_timeout = "180s"

    # Mode NOTRACK { PurgeTimeout }, which is also the default.
    purge_timeout = "15s"
  }
}
