// A kube-apiserver with an etcd of its own in the same process, for tests on one machine. It ends when its standard input does, so that no
// server outlives the tests that started it.
//
// Usage: apiserver STATE_DIR ETCD_CLIENT_PORT ETCD_PEER_PORT KUBE_APISERVER_FLAGS...
package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: apiserver STATE_DIR ETCD_CLIENT_PORT ETCD_PEER_PORT KUBE_APISERVER_FLAGS...")
		os.Exit(64)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	state, client, peer := os.Args[1], loopback(os.Args[2]), loopback(os.Args[3])
	if err := startStore(state, client, peer); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
	os.Args = append([]string{"kube-apiserver", "--etcd-servers=" + client.String()}, os.Args[4:]...)
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}

func loopback(port string) url.URL {
	return url.URL{Scheme: "http", Host: "127.0.0.1:" + port}
}

// startStore starts an etcd of one member and waits until it serves. What it holds need not survive a power cut.
func startStore(state string, client, peer url.URL) error {
	config := embed.NewConfig()
	config.Dir = filepath.Join(state, "etcd")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	store, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	select {
	case <-store.Server.ReadyNotify():
		return nil
	case err := <-store.Err():
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("not ready after a minute")
	}
}
