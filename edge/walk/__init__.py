"""The walk test: what is heard room by room, kept, drawn, and put on the commissioning sheet."""
