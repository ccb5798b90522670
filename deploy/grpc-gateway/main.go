// The documented REST paths by grpc-gateway, for those who run it instead of Envoy.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // a worker that drains gets nothing more
)

const (
	maxBody   = 1 << 20
	maxAnswer = 128 << 20 // a hundred tickets of the largest size
	// Of what a client sends before its body. More than the documented 16 KiB, so that the refusal is a document.
	maxHeaders = 32 << 10
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "the address to listen on")
	upstream := flag.String("upstream", "dns:///127.0.0.1:50051", "the service, as a target of gRPC; every address behind its name is a worker")
	flag.Parse()
	connection, err := grpc.NewClient(
		*upstream,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`),
	)
	check(err)
	handler, err := newGateway(connection)
	check(err)
	server := &http.Server{
		Addr: *listen, Handler: handler, MaxHeaderBytes: maxHeaders,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute,
		Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-asked.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close() // watches, which do not end by themselves
		}
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
