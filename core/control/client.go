package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A Client speaks to the runner behind a socket. Its methods may be called
// from any goroutine; each error is one line that says what to try next.
type Client struct {
	socket string
	http   *http.Client
}

// answerTimeout is how long a runner may take to begin an answer. What it then
// streams takes as long as it takes.
const answerTimeout = 15 * time.Second

// NewClient returns a client for the socket at a path. It connects when it is
// used.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext:           dial,
		ResponseHeaderTimeout: answerTimeout,
		DisableKeepAlives:     true, // a command makes one request, or a few far apart
		DisableCompression:    true,
	}}}
}

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	answer, err := c.send(ctx, http.MethodGet, pathStatus, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	status := &Status{}
	if err := json.NewDecoder(answer.Body).Decode(status); err != nil {
		return nil, c.explain(ctx, err)
	}
	return status, nil
}

// Dump copies what a cache holds to out, line by line as the runner sends it.
// What a tap sees comes until ctx ends.
func (c *Client) Dump(ctx context.Context, r DumpRequest, out io.Writer) error {
	query, path := url.Values{"target": {r.Target}, "arg": r.Args}, pathDump
	switch r.What {
	case DumpFlows:
	case DumpTap:
		path = pathTap
	default:
		query.Set("what", r.What)
	}
	if r.JSON {
		query.Set("json", "1")
	}
	answer, err := c.send(ctx, http.MethodGet, path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	target := &writer{w: out}
	if _, err := io.Copy(target, answer.Body); err != nil {
		if target.err != nil {
			return target.err
		}
		return c.explain(ctx, err)
	}
	if _, complete := answer.Trailer[trailerError]; !complete {
		return c.explain(ctx, io.ErrUnexpectedEOF)
	}
	if text := answer.Trailer.Get(trailerError); text != "" {
		return errors.New(text)
	}
	return nil
}

// Plan returns what a reload would do: see Backend.
func (c *Client) Plan(ctx context.Context, configuration []byte) (*Plan, error) {
	answer, err := c.send(ctx, http.MethodPost, pathPlan, bytes.NewReader(configuration))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	plan := &Plan{}
	if err := json.NewDecoder(answer.Body).Decode(plan); err != nil {
		return nil, c.explain(ctx, err)
	}
	return plan, nil
}

// writer remembers which side of a copy failed.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}

// Do has a command carried out and calls report, if it is not nil, for each
// step as it ends. The command is not cancelled by the runner for certain when
// ctx ends: what a takeover has begun it may well finish.
func (c *Client) Do(ctx context.Context, r Request, report func(Step)) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	answer, err := c.send(ctx, http.MethodPost, pathDo, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	for {
		var l line
		if err := lines.Decode(&l); err != nil {
			return c.explain(ctx, err)
		}
		switch {
		case l.Done && l.Error != "":
			return errors.New(l.Error)
		case l.Done:
			return nil
		case report != nil:
			l.Step.Error = l.Error
			report(l.Step)
		}
	}
}

// send returns an answer whose status is 200.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://sluice"+path, body)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	var f failure
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxError))
	if err := json.Unmarshal(text, &f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("the runner at %s answers %q: is it a Sluice runner, and of this version?", c.socket, answer.Status)
	}
	if answer.StatusCode == http.StatusServiceUnavailable {
		return nil, fmt.Errorf("%w: %s", ErrBusy, f.Error)
	}
	return nil, errors.New(f.Error)
}
