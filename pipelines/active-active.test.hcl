# Tests of active-active.hcl, run by: sluice test pipelines

test "flows through the firewall are replicated, those of its own and of the link are not" {
  stage = "local.filter.basic"

  input {
    events = <<-EOT
      [NEW] tcp    src=10.0.0.7        dst=192.0.2.80      sport=40000 dport=443
      [NEW] udp    src=10.0.0.7        dst=192.0.2.53      sport=5353  dport=53
      [NEW] icmp   src=10.0.0.7        dst=192.0.2.80
      [NEW] icmpv6 src=2001:db8::7     dst=2001:db8:1::80
      [NEW] gre    src=10.0.0.7        dst=192.0.2.80
      [NEW] udp    src=192.168.100.1   dst=225.0.0.50      sport=3780  dport=3780
      [NEW] tcp    src=127.0.0.1       dst=127.0.0.1       sport=40001 dport=25
      [NEW] tcp    src=192.168.0.1     dst=192.0.2.80      sport=40002 dport=443
    EOT
  }

  expect {
    events = <<-EOT
      tcp src=10.0.0.7
      udp src=10.0.0.7
      icmp
      icmpv6
    EOT
  }
}

test "flows that the peer brought are not sent back to it" {
  pipeline = "local"

  step "a dump tells of what may be anybody's" {
    input {
      replay = true
      events = "[UPDATE] tcp ESTABLISHED src=10.0.0.9 dst=192.0.2.80 sport=40001 dport=443"
    }
    expect {
      count = 0
    }
  }

  step "the kernel tells of what this node has put there for the peer" {
    input {
      origin = "own"
      events = "[NEW] tcp ESTABLISHED src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443"
    }
    expect {
      count = 0
    }
    expect {
      cache  = "local.cache.memory"
      events = <<-EOT
        tcp src=10.0.0.7 [FOREIGN]
        tcp src=10.0.0.9 [FOREIGN]
      EOT
    }
  }

  step "a packet comes through this node" {
    input {
      events = "[UPDATE] tcp FIN_WAIT src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443"
    }
    expect {
      events = "tcp FIN_WAIT src=10.0.0.7"
    }
  }
}

test "what the peer carries goes into the kernel at once" {
  pipeline = "peers"

  input {
    owner  = "192.168.100.2"
    events = "[NEW] tcp SYN_SENT src=10.0.0.7 dst=192.0.2.80 sport=40000 dport=443 mark=7"
  }

  expect {
    events     = "[NEW] tcp SYN_SENT src=10.0.0.7 mark=7 owner=192.168.100.2"
    statistics = { "peers.cache.memory" = { events_in = 1, events_out = 1 } }
  }
}
