package ctnl

// Message types of the subsystem, enum cntl_msg_types in
// linux/netfilter/nfnetlink_conntrack.h. A netlink header's type holds the
// subsystem in the high byte and one of these in the low one.
const (
	subsystem = 1 << 8 // NFNL_SUBSYS_CTNETLINK

	typeNew    = subsystem     // 0, IPCTNL_MSG_CT_NEW
	typeGet    = subsystem | 1 // IPCTNL_MSG_CT_GET
	typeDelete = subsystem | 2 // IPCTNL_MSG_CT_DELETE

	expectSubsystem = 2 << 8 // NFNL_SUBSYS_CTNETLINK_EXP

	typeExpectNew    = expectSubsystem     // 0, IPCTNL_MSG_EXP_NEW
	typeExpectGet    = expectSubsystem | 1 // IPCTNL_MSG_EXP_GET
	typeExpectDelete = expectSubsystem | 2 // IPCTNL_MSG_EXP_DELETE
)

// Top-level attributes, enum ctattr_type.
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoInfo     = 4
	ctaHelp          = 5
	ctaNATSrc        = 6
	ctaTimeout       = 7
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaNATDst        = 13
	ctaTupleMaster   = 14
	ctaSeqAdjOrig    = 15
	ctaSeqAdjReply   = 16
	ctaZone          = 18
	ctaTimestamp     = 20
	ctaMarkMask      = 21
	ctaLabels        = 22
	ctaSynproxy      = 24
	ctaStatusMask    = 26
)

// Attributes of a tuple, enums ctattr_tuple, ctattr_ip and ctattr_l4proto.
const (
	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9
)

// Attributes of protocols, enums ctattr_protoinfo and below.
const (
	ctaProtoInfoTCP  = 1
	ctaProtoInfoDCCP = 2
	ctaProtoInfoSCTP = 3

	ctaTCPState       = 1
	ctaTCPWScaleOrig  = 2
	ctaTCPWScaleReply = 3
	ctaTCPFlagsOrig   = 4
	ctaTCPFlagsReply  = 5

	ctaDCCPState     = 1
	ctaDCCPRole      = 2
	ctaDCCPHandshake = 3

	ctaSCTPState     = 1
	ctaSCTPVTagOrig  = 2
	ctaSCTPVTagReply = 3
)

// Attributes of expectations, enums ctattr_expect and ctattr_expect_nat.
const (
	ctaExpectMaster   = 1
	ctaExpectTuple    = 2
	ctaExpectMask     = 3
	ctaExpectTimeout  = 4
	ctaExpectID       = 5
	ctaExpectHelpName = 6
	ctaExpectZone     = 7
	ctaExpectFlags    = 8
	ctaExpectClass    = 9
	ctaExpectNAT      = 10
	ctaExpectFunction = 11

	ctaExpectNATDirection = 1
	ctaExpectNATTuple     = 2
)

// The remaining nested attributes.
const (
	ctaHelpName = 1 // enum ctattr_help

	ctaCountersPackets = 1 // enum ctattr_counters
	ctaCountersBytes   = 2

	ctaTimestampStart = 1 // enum ctattr_tstamp
	ctaTimestampStop  = 2

	ctaSeqAdjPosition = 1 // enum ctattr_seqadj
	ctaSeqAdjBefore   = 2
	ctaSeqAdjAfter    = 3

	ctaSynproxyISN   = 1 // enum ctattr_synproxy
	ctaSynproxyITS   = 2
	ctaSynproxyTSOff = 3

	ctaNATv4MinIP = 1 // enum ctattr_nat
	ctaNATProto   = 3
	ctaNATv6MinIP = 4

	ctaProtoNATPortMin = 1 // enum ctattr_protonat
)

// Bits of the TCP flags, IP_CT_TCP_FLAG_* in nf_conntrack_tcp.h.
const (
	tcpWindowScale = 0x01
	tcpSACK        = 0x02
	tcpCloseInit   = 0x04
	tcpLiberal     = 0x08
)

// Bounds that the kernel enforces with ERANGE or silently.
const (
	maxTCPState    = 9 // TCP_CONNTRACK_SYN_SENT2
	maxWindowScale = 14
	labelsSize     = 16 // NF_CT_LABELS_MAX_SIZE
	maxHelperName  = 15 // NF_CT_HELPER_NAME_LEN without the NUL

	// maxFunctionName is more than any function's name has ("nat-follow-master"
	// is the longest). The kernel has no bound.
	maxFunctionName = 31
)
