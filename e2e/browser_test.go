package e2e

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browse opens headless Chromium with a profile of its own.
func browse(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	need(t, "chromium-headless-shell", path != "")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	parent, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	allocator, stop := chromedp.NewExecAllocator(parent, options...)
	t.Cleanup(stop)
	ctx, done := chromedp.NewContext(allocator)
	t.Cleanup(done)
	return ctx
}

func media(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})
}

func scripts(enabled bool) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !enabled})
		return err
	})
}

// TestBrowser: a person in Chromium signs in, approves and lands at the client's
// callback with a code, with and without JavaScript. With KAVACH_SCREENSHOTS=DIR
// both pages are pictured, light and dark, on a desktop and on a phone.
func TestBrowser(t *testing.T) {
	for _, mode := range []struct {
		name          string
		scheme        string
		width, height int64
		script        bool
	}{
		{"desktop-light", "light", 1280, 900, true},
		{"desktop-dark", "dark", 1280, 900, false},
		{"phone-light", "light", 390, 844, false},
		{"phone-dark", "dark", 390, 844, true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			ctx := browse(t)
			s := start(t)
			landed := make(chan url.Values, 1)
			callback, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/callback" {
					select {
					case landed <- r.URL.Query():
					default:
					}
				}
				w.Header().Set("Content-Type", "text/html")
				w.Write([]byte("<title>client</title>signed in"))
			})}
			go client.Serve(callback)
			t.Cleanup(func() { client.Close() })

			c := register(t, s.Issuer)
			c.Redirect = "http://" + callback.Addr().String() + "/callback" // any port is the same loopback client (RFC 8252 §7.3)
			r := c.request("kavach:verify kavach:delegate kavach:audit", nil)

			picture := func(page string) {
				if dir := os.Getenv("KAVACH_SCREENSHOTS"); dir != "" {
					png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, page+"-"+mode.name+".png"), png, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			step := func(what string, actions ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				if err := chromedp.Do(ctx, actions...); err != nil {
					where, _ := chromedp.Run(ctx, chromedp.Location())
					t.Fatalf("%s: %v (at %s)", what, err, where)
				}
			}
			step("open", chromedp.EmulateViewport(mode.width, mode.height), media(mode.scheme), scripts(mode.script), chromedp.Navigate(r.url), chromedp.WaitVisible(`input[name=password]`))
			picture("login")
			step("sign in", chromedp.SendKeys(`input[name=username]`, "dev"), chromedp.SendKeys(`input[name=password]`, "dev"), chromedp.Click(`button[type=submit]`), chromedp.WaitVisible(`button[name=decision][value=approve]`))
			picture("consent")
			step("approve", chromedp.Click(`button[name=decision][value=approve]`))
			select {
			case q := <-landed:
				got, err := c.redeem(q.Get("code"), r.verifier)
				if err != nil || got.Status != http.StatusOK {
					t.Fatalf("the code that the browser brought did not redeem: %v %+v", err, got)
				}
				if q.Get("iss") != s.Issuer {
					t.Errorf("iss is %q", q.Get("iss"))
				}
			case <-time.After(20 * time.Second):
				where, _ := chromedp.Run(ctx, chromedp.Location())
				t.Fatalf("the browser never came to the callback; it is at %s", where)
			}
		})
	}
}
