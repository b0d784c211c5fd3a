"""What several benchmarks need: processes of servers, clients, the documents."""
