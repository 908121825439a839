// Carries out calls against a control plane, in the words of our descriptors.
//
// Each line of the input is a call as JSON (server, path, request), and each line of the output is what came of it:
// {"answer": …} or {"code": …, "message": …}. The argument is a file with a FileDescriptorSet.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const timeout = 20 * time.Second

type call struct {
	Server  string          `json:"server"`
	Path    string          `json:"path"`
	Request json.RawMessage `json:"request"`
}

type outcome struct {
	Answer  json.RawMessage `json:"answer,omitempty"`
	Code    uint32          `json:"code,omitempty"`
	Message string          `json:"message"`
}

type client struct {
	protocols   *protoregistry.Files
	connections map[string]*grpc.ClientConn
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance-client:", err)
		os.Exit(1)
	}
}

func run(descriptors string) error {
	protocols, err := load(descriptors)
	if err != nil {
		return fmt.Errorf("cannot read the protocols in %s: %w", descriptors, err)
	}
	client := client{protocols: protocols, connections: map[string]*grpc.ClientConn{}}
	output := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var call call
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			return fmt.Errorf("cannot read a call: %w", err)
		}
		outcome, err := client.do(call)
		if err != nil {
			return fmt.Errorf("cannot call %s: %w", call.Path, err)
		}
		if err := output.Encode(outcome); err != nil {
			return fmt.Errorf("cannot tell what came of a call: %w", err)
		}
	}
	return lines.Err()
}

func load(path string) (*protoregistry.Files, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(bytes, &set); err != nil {
		return nil, err
	}
	return protodesc.NewFiles(&set)
}

func (c *client) do(call call) (outcome, error) {
	method, err := c.method(call.Path)
	if err != nil {
		return outcome{}, err
	}
	request, answer := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal(call.Request, request); err != nil {
		return outcome{}, err
	}
	connection, err := c.connection(call.Server)
	if err != nil {
		return outcome{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := connection.Invoke(ctx, call.Path, request, answer); err != nil {
		refused, ok := status.FromError(err)
		if !ok {
			return outcome{}, err
		}
		return outcome{Code: uint32(refused.Code()), Message: refused.Message()}, nil
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(answer)
	return outcome{Answer: text}, err
}

func (c *client) connection(server string) (*grpc.ClientConn, error) {
	if known, ok := c.connections[server]; ok {
		return known, nil
	}
	// The server is on this machine, whatever proxy the environment names.
	connection, err := grpc.NewClient("passthrough:///"+server,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	c.connections[server] = connection
	return connection, nil
}

func (c *client) method(path string) (protoreflect.MethodDescriptor, error) {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	found, err := c.protocols.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, err
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no method", name)
	}
	return method, nil
}
