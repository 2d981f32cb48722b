// Simulated clusters: many API servers that are one.
//
// A namespace of one real API server is shown as a cluster of its own below a path: /c0007/api/v1/configmaps is
// what the whole cluster c0007 has, and is asked of the API server as /api/v1/namespaces/c0007/configmaps. Without
// it every watch of every simulated cluster would carry the events of all of them. Whatever is not a collection of
// all namespaces goes through as it is. The program ends when its standard input does.
//
//	clusters -upstream https://127.0.0.1:6443 -certificate apiserver.crt -key apiserver.key
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

// Collections that belong to no namespace.
var clusterScoped = map[string]bool{"namespaces": true, "nodes": true, "persistentvolumes": true}

// within gives the path on the API server of `path` of a simulated cluster.
func within(path string) string {
	cluster, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	parts := strings.Split(rest, "/")
	root := 0
	if parts[0] == "api" {
		root = 2
	} else if parts[0] == "apis" {
		root = 3
	}
	if root > 0 && len(parts) == root+1 && !clusterScoped[parts[root]] {
		return "/" + strings.Join(parts[:root], "/") + "/namespaces/" + cluster + "/" + parts[root]
	}
	return "/" + rest
}

func main() {
	upstream := flag.String("upstream", "", "the API server's address")
	certificate := flag.String("certificate", "", "its certificate, which is ours, too")
	key := flag.String("key", "", "its key")
	flag.Parse()
	target, err := url.Parse(*upstream)
	if err != nil {
		log.Fatal(err)
	}
	trusted := x509.NewCertPool()
	content, err := os.ReadFile(*certificate)
	if err != nil || !trusted.AppendCertsFromPEM(content) {
		log.Fatalf("no certificate in %s: %v", *certificate, err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(target)
			request.Out.URL.Path = within(request.In.URL.Path)
			request.Out.URL.RawPath = ""
		},
		// HTTP/1.1 with as many connections as clients have: none waits for another's.
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, MaxIdleConnsPerHost: 8192},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Handler:      proxy,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	fmt.Printf("https://%s\n", listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(server.ServeTLS(listener, *certificate, *key))
}
