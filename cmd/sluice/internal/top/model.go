package top

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/rates"
)

// Options are what a Model needs.
type Options struct {
	// Ask asks the runner. It is called from a goroutine of its own, never twice
	// at once.
	Ask func() (*control.Status, error)
	// Now is the time; nil is time.Now.
	Now func() time.Time
	// Interval is the time between two questions.
	Interval time.Duration
	// Color says that the terminal shows colours and somebody wants them.
	Color bool
}

// A Model is the state of the screen.
type Model struct {
	Options

	meter  rates.Meter
	status *control.Status
	rates  rates.Rates
	at     time.Time // of the status
	err    error     // of the last question

	paused        bool
	order         order
	reverse       bool
	first         int // the first stage that is shown
	width, height int
}

// New returns a screen that shows nothing yet.
func New(o Options) *Model {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Model{Options: o, width: 80, height: 24}
}

// answered is the runner's answer, due that it is time to ask again.
type (
	answered struct {
		status *control.Status
		err    error
		at     time.Time
	}
	due struct{}
)

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd { return m.question }

func (m *Model) question() tea.Msg {
	s, err := m.Ask()
	return answered{s, err, m.Now()}
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case answered:
		if !m.paused {
			m.take(msg)
		}
		return m, tea.Tick(m.Interval, func(time.Time) tea.Msg { return due{} })
	case due:
		return m, m.question
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	}
	return m, nil
}

// take shows an answer. After an error the last status stays, and says how old
// it is.
func (m *Model) take(a answered) {
	if m.err = a.err; a.err != nil {
		return
	}
	m.status, m.at = a.status, a.at
	if r := m.meter.Next(a.status, a.at); r != nil {
		m.rates = r
	}
}

// key does what a key asks for.
func (m *Model) key(name string) tea.Cmd {
	switch name {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "p", "space":
		m.paused = !m.paused
	case "r":
		m.reverse = !m.reverse
	case "up", "k":
		m.first--
	case "down", "j":
		m.first++
	case "pgup":
		m.first -= m.room()
	case "pgdown":
		m.first += m.room()
	case "home":
		m.first = 0
	default:
		if o, ok := orders[name]; ok {
			m.order, m.reverse, m.first = o, false, 0
		}
	}
	m.first = max(0, min(m.first, len(m.stages())-m.room()))
	return nil
}

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	v.WindowTitle = "sluice top"
	return v
}
