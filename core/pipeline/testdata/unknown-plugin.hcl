runner {
  plugin_path = ["/opt/one", "/opt/two"]
}

pipeline "local" {
  source "netlnik" {}
  filter "geoip" {}
  cache "../../bin/sh" {}
  sink "log" {}
}
