package notrack

// DefaultPort is the UDP port that conntrackd's documentation uses.
const DefaultPort = 3780
