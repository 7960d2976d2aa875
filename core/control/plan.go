package control

import "time"

// A Plan is what a reload does, or would do.
type Plan struct {
	Settings []SettingPlan `json:"settings,omitempty"` // of the runner block, that change
	Stages   []StagePlan   `json:"stages"`             // all, pipelines in order, those that go last
	Replays  []ReplayPlan  `json:"replays,omitempty"`
}

// Action is what becomes of a stage.
type Action string

// The actions.
const (
	Keep    Action = "keep"    // its process goes on as it is
	Rewire  Action = "rewire"  // its process goes on with other edges below it
	Replace Action = "replace" // another process takes its place
	Add     Action = "add"
	Remove  Action = "remove"
)

// A SettingPlan is a setting of the runner that changes.
type SettingPlan struct {
	Name    string `json:"name"` // as in "log.level"
	Old     string `json:"old"`
	New     string `json:"new"`
	Refused string `json:"refused,omitempty"` // why it can't while the runner runs: then nothing is reloaded
}

// A StagePlan is what becomes of one stage.
type StagePlan struct {
	Address  string       `json:"address"`
	Pipeline string       `json:"pipeline"`
	Action   Action       `json:"action"`
	Reasons  []ReasonPlan `json:"reasons,omitempty"`
	Cost     []string     `json:"cost,omitempty"` // what is lost or interrupted, for people

	// Moved: a stage of this address stands elsewhere in its pipeline. It is
	// replaced, and takes nothing over.
	Moved bool `json:"moved,omitempty"`
}

// A ReasonPlan is one reason why a stage can't just go on.
type ReasonPlan struct {
	Attribute string `json:"attribute,omitempty"` // of its configuration, as in "address.ignore"
	Old       string `json:"old,omitempty"`       // JSON; "" if it was not given
	New       string `json:"new,omitempty"`
	Text      string `json:"text,omitempty"` // of a reason that is no attribute
}

// A ReplayPlan is a replay that a reload asks for.
type ReplayPlan struct {
	Stage string `json:"stage"`          // that replays
	Into  string `json:"into,omitempty"` // the one sink that it is for, or ""
	Down  bool   `json:"down,omitempty"` // then the caches below it replay, one after another
	From  string `json:"from"`           // what it has it from: kernel, peers, memory, or source if it reads something else
}

// Changes says whether there is anything to do.
func (p *Plan) Changes() bool {
	for _, s := range p.Stages {
		if s.Action != Keep {
			return true
		}
	}
	return len(p.Settings) > 0
}

// Refused returns the settings that can't change while the runner runs.
func (p *Plan) Refused() (refused []SettingPlan) {
	for _, s := range p.Settings {
		if s.Refused != "" {
			refused = append(refused, s)
		}
	}
	return refused
}

// The results of a reload.
const (
	ReloadDone    = "done"
	ReloadFailed  = "failed"  // nothing was changed
	ReloadPartial = "partial" // it failed on the way: Error says what is as it was, and what is not
)

// ReloadStatus is how the last reload ended.
type ReloadStatus struct {
	Time    time.Time     `json:"time"`
	Elapsed time.Duration `json:"elapsed_ns"`
	Result  string        `json:"result"`
	Error   string        `json:"error,omitempty"`
	Changes []string      `json:"changes,omitempty"` // as in "replace local.filter.basic: address.ignore"
	Good    uint64        `json:"succeeded"`         // reloads since the runner started
	Bad     uint64        `json:"failed"`
	Loaded  time.Time     `json:"loaded"` // when the configuration in use was
}
