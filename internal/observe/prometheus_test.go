package observe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-project/sluice/core/pipeline"
)

// patience bounds waits for conditions; it is never the thing measured.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// webConfig writes a web configuration with a certificate and a password.
func webConfig(t *testing.T, dir string) (file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fw1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write(t, dir+"/web.yml", fmt.Appendf(nil, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {prometheus: %q}\n", hash))
	return dir + "/web.yml"
}

// freePort returns a port of the loopback address that nobody uses now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listening serves a node over TLS, with a password.
func listening(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Listen(pipeline.Metrics{Listen: "127.0.0.1:0", WebConfig: webConfig(t, dir)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serving(t, s)
	return s
}

// serving serves a node until the test's end.
func serving(t *testing.T, s *Server) {
	t.Helper()
	ended := make(chan struct{})
	go func() { s.Serve(&told{make: firewall}); close(ended) }()
	t.Cleanup(func() { s.Close(); <-ended })
}

// An address that another has is waited for, and so is a file that is broken only when it
// is read again: a node runs without its metrics.
func TestServesWhenItCan(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	file := t.TempDir() + "/web.yml"
	write(t, file, []byte("basic_auth_users: {}\n"))
	s, err := Listen(pipeline.Metrics{Listen: other.Addr().String(), WebConfig: file}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, []byte("nonsense: 1\n"))
	serving(t, s)
	other.Close()
	write(t, file, []byte("basic_auth_users: {}\n"))
	eventually(t, "an answer", func() bool {
		answer, err := http.Get("http://" + other.Addr().String() + "/healthz")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == 200
	})
}

// Prometheus itself, of Debian's package, scrapes a node over TLS with a
// password, and evaluates the alerts.
func TestPrometheusScrapes(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("needs prometheus: apt-get install prometheus")
	}
	dir := t.TempDir()
	s := listening(t, dir)
	rules, err := filepath.Abs("../../contrib/prometheus/sluice.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/prometheus.yml", fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: sluice
    scheme: https
    tls_config: {ca_file: cert.pem}
    basic_auth: {username: prometheus, password: secret}
    static_configs: [{targets: ["%s"]}]
`, rules, s.listener.Addr()))
	address := freePort(t)
	cmd := exec.CommandContext(t.Context(), program, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+address)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for query, want := range map[string]string{
		`sluice_ready`:                "1",
		`sluice_role{role="primary"}`: "1",
		`sluice_cache_flows_limit{stage="local.cache.memory"}`:            "1048576",
		`count(sluice_stage_up)`:                                          "7",
		`sluice_peer_up{peer="192.168.100.101"}`:                          "1",
		`sluice_stage_losses_total{cause="messages_lost"}`:                "12",
		`up{job="sluice"}`:                                                "1",
		`count(ALERTS{alertname=~"Sluice(Down|Unhealthy)"}) or vector(0)`: "0",
	} {
		got := ""
		eventually(t, query+" is "+want, func() bool { got = ask(address, query); return got == want })
	}
}

// ask returns the value of the only series of an answer, or "".
func ask(address, query string) string {
	answer, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	var reply struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&reply); err != nil || len(reply.Data.Result) != 1 {
		return ""
	}
	text, _ := reply.Data.Result[0].Value[1].(string)
	return text
}

// Without the password there is nothing to be had.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	s := listening(t, dir)
	pool := x509.NewCertPool()
	cert, err := os.ReadFile(dir + "/cert.pem")
	if err != nil || !pool.AppendCertsFromPEM(cert) {
		t.Fatal(err)
	}
	client := secureClient(pool)
	for password, want := range map[string]int{"": 401, "wrong": 401, "secret": 200} {
		request, err := http.NewRequest("GET", "https://"+s.listener.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			request.SetBasicAuth("prometheus", password)
		}
		eventually(t, "an answer", func() bool {
			answer, err := client.Do(request)
			if err != nil {
				return false
			}
			defer answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("password %q: %s, not %d", password, answer.Status, want)
			}
			return true
		})
	}
	_, err = Listen(pipeline.Metrics{Listen: "127.0.0.1:0", WebConfig: dir + "/none.yml"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "metrics: web_config: "+dir+"/none.yml: ") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func secureClient(pool *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}
