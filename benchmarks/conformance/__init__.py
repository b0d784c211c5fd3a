"""What servers answer to the bytes that test rules of RFC 9110 and RFC 9112."""
