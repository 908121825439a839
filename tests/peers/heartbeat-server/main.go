// The least that a control plane in Go can be: heartbeats are put into a map behind a mutex. What ours is measured against.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// heartbeatRequest is flowctl.v1.HeartbeatRequest. The protobuf library reads these tags into the same tables that it has for
// generated code, so that none is needed.
type heartbeatRequest struct {
	ServiceID string            `protobuf:"bytes,1,opt,name=service_id,json=serviceId,proto3"`
	Status    int32             `protobuf:"varint,2,opt,name=status,proto3"`
	Metrics   map[string]string `protobuf:"bytes,3,rep,name=metrics,proto3" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
}

func (beat *heartbeatRequest) Reset()         { *beat = heartbeatRequest{} }
func (beat *heartbeatRequest) String() string { return beat.ServiceID }
func (*heartbeatRequest) ProtoMessage()       {}

type service struct {
	beat    time.Time
	status  int32
	metrics map[string]string
}

type server struct {
	mutex    sync.Mutex
	services map[string]*service
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	if err := run(*address); err != nil {
		fmt.Fprintln(os.Stderr, "heartbeat-server:", err)
		os.Exit(1)
	}
}

func run(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	description := grpc.ServiceDesc{
		ServiceName: "flowctl.v1.ControlPlaneService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Heartbeat", Handler: handle}},
	}
	grpcServer := grpc.NewServer()
	grpcServer.RegisterService(&description, &server{services: map[string]*service{}})
	return grpcServer.Serve(listener)
}

func handle(to any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var beat heartbeatRequest
	if err := decode(&beat); err != nil {
		return nil, err
	}
	to.(*server).heartbeat(&beat)
	return &emptypb.Empty{}, nil
}

// heartbeat keeps what a beat says, as the existing server does: the status unless it is UNKNOWN, and metrics merged by key.
func (s *server) heartbeat(beat *heartbeatRequest) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	known, ok := s.services[beat.ServiceID]
	if !ok {
		known = &service{metrics: map[string]string{}}
		s.services[beat.ServiceID] = known
	}
	known.beat = time.Now()
	if beat.Status != 0 {
		known.status = beat.Status
	}
	for key, value := range beat.Metrics {
		known.metrics[key] = value
	}
}
