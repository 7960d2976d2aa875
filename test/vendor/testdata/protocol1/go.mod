// The test builds it with the versions that Sluice's own go.mod has, so that
// nothing is downloaded for it.
module example.com/sluice-filter-protocol1

go 1.26
