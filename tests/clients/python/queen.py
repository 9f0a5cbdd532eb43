"""A queen as a plain Python program sees it: every message and method comes from server reflection."""
import os

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DEADLINE_SECONDS = 10


class Queen:
    """Calls by name: `queen.call("FleetService/ListWorkers", page_size=10)`."""

    def __init__(self):
        self.channel = grpc.insecure_channel(os.environ["RBEE_ADDR"])
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def close(self):
        self.channel.close()

    def services(self):
        return set(self.database.get_services())

    def message(self, name, /, **fields):
        return GetMessageClass(self.pool.FindMessageTypeByName(f"rbee.v1.{name}"))(**fields)

    def number(self, enum, value):
        return self.pool.FindEnumTypeByName(f"rbee.v1.{enum}").values_by_name[value].number

    def method(self, path):
        """The callable for Service/Method, and its request class."""
        service, method = path.split("/")
        found = self.pool.FindServiceByName(f"rbee.v1.{service}").FindMethodByName(method)
        request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        kind = ("stream" if found.client_streaming else "unary") + ("_stream" if found.server_streaming else "_unary")
        make = getattr(self.channel, kind)
        call = make(
            f"/rbee.v1.{path}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        return call, request

    def call(self, path, /, timeout=DEADLINE_SECONDS, **fields):
        call, request = self.method(path)
        return call(request(**fields), timeout=timeout)


def name(worker):
    return f"{worker.spec.hive}/{worker.spec.group}/{worker.spec.instance}"
