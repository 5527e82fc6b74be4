"""A server over HTTP, written with the official SDK, that asks who is there.

Argument "oauth": it is its own authorization server, with registration and a login that is always granted; argument
"tokens": it takes each `tool-...` three times, and `tool-always` for good. The first line it writes is its port.
"""

import secrets
import socket
import sys

import uvicorn
from mcp.server.auth.provider import AccessToken, AuthorizationCode, construct_redirect_uri
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import OAuthToken

USES = 3


class Tokens:
    """Knows tokens by their number; each may be used three times, and then the next one."""

    def __init__(self):
        self.used = {}

    async def verify_token(self, token):
        used = self.used[token] = self.used.get(token, 0) + 1
        good = token.startswith("tool-") and (used <= USES or token == "tool-always")
        return AccessToken(token=token, client_id="me", scopes=[]) if good else None


class Logins:
    """An authorization server that grants whatever is asked."""

    def __init__(self):
        self.clients, self.codes, self.tokens = {}, {}, {}

    async def get_client(self, client_id):
        return self.clients.get(client_id)

    async def register_client(self, client_info):
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client, params):
        code = secrets.token_urlsafe(16)
        self.codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [],
            expires_at=2**40,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(self, client, authorization_code):
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(self, client, authorization_code):
        del self.codes[authorization_code.code]
        token = f"granted-{len(self.tokens)}"
        self.tokens[token] = AccessToken(
            token=token, client_id=client.client_id, scopes=[], resource=authorization_code.resource
        )
        return OAuthToken(access_token=token, token_type="Bearer", expires_in=3600)

    async def load_access_token(self, token):
        return self.tokens.get(token)

    async def load_refresh_token(self, client, refresh_token):
        return None

    async def revoke_token(self, token):
        self.tokens.pop(token.token, None)


listener = socket.create_server(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listener.getsockname()[1]}"
settings = AuthSettings(
    issuer_url=address,
    resource_server_url=f"{address}/mcp",
    validate_token_resource=sys.argv[1] == "oauth",
    client_registration_options=ClientRegistrationOptions(enabled=True),
)
who = {"auth_server_provider": Logins()} if sys.argv[1] == "oauth" else {"token_verifier": Tokens()}
server = MCPServer("guarded", log_level="CRITICAL", auth=settings, **who)


@server.tool()
def secret() -> str:
    """Tell what only those are told who may know."""
    return "the cake is real"


if __name__ == "__main__":
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(server.streamable_http_app(), log_level="critical")
    uvicorn.Server(config).run(sockets=[listener])
