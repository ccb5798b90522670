from tickets.helpdesk.v1 import rest_pb2_grpc, service_pb2_grpc


class TicketService(service_pb2_grpc.TicketServiceServicer):
    def __init__(self, database):
        self.database = database


class TicketRest(rest_pb2_grpc.TicketRestServicer):
    def __init__(self, database):
        self.database = database
