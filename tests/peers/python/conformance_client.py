"""Carries out calls against a control plane, in the words of our descriptors.

Each line of the input is a call as JSON (server, path, request), and each line of the output is what came of it: {"answer": …} or
{"code": …, "message": …}. The argument is a file with a FileDescriptorSet.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TIMEOUT_SECONDS = 20


def load(path):
    """The protocols in a file."""
    with open(path, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
    pool = descriptor_pool.DescriptorPool()
    for one in files:
        pool.AddSerializedFile(one.SerializeToString())
    return pool


class Client:
    def __init__(self, pool):
        self.pool = pool
        self.channels = {}

    def channel(self, server):
        if server not in self.channels:
            # The server is on this machine, whatever proxy the environment names.
            self.channels[server] = grpc.insecure_channel(server, options=[("grpc.enable_http_proxy", 0)])
        return self.channels[server]

    def call(self, server, path, request):
        _, service, name = path.split("/")
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        asked = message_factory.GetMessageClass(method.input_type)
        answered = message_factory.GetMessageClass(method.output_type)
        call = self.channel(server).unary_unary(
            path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
        )
        message = json_format.ParseDict(request, asked(), descriptor_pool=self.pool)
        try:
            answer = call(message, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}
        return {"answer": json_format.MessageToDict(answer, preserving_proto_field_name=True)}


def main():
    client = Client(load(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(client.call(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
