"""Between protobuf and domain: requests, replies, statuses and slices. The only home of message details."""
