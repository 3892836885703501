// An OpenID provider (npm oidc-provider) whose keys rotate, behind the issuer's address of another port:
//
//     node provider.mjs http://127.0.0.1:4000
//
// prints {"port": …} once it listens. Each line of its input is an order that it answers with {"done": …}: "rotate" puts
// a new key before the others, "withdraw" leaves the first one alone.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const issuer = process.argv[2];
let keys = [];
let provider;

async function rotate() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const name = `key-${process.pid}-${keys.length + 1}-${Date.now()}`;
  keys.unshift({ ...(await exportJWK(privateKey)), kid: name, alg: 'RS256', use: 'sig' });
}

function use() {
  const resource = {
    scope: 'notifications',
    audience: 'herald',
    accessTokenFormat: 'jwt',
    accessTokenTTL: 600,
    jwt: { sign: { alg: 'RS256' } },
  };
  provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'herald',
        client_secret: 'a-secret-of-the-tests',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    extraTokenClaims: () => ({ workspaces: ['acme'] }),
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => resource,
        defaultResource: () => 'urn:herald',
        useGrantedResource: () => true,
      },
    },
  });
}

await rotate();
use();
const server = createServer((request, response) => provider.callback()(request, response));
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
const orders = createInterface({ input: process.stdin });
orders.on('line', async (line) => {
  const order = JSON.parse(line);
  if (order === 'rotate') await rotate();
  if (order === 'withdraw') keys = keys.slice(0, 1);
  use();
  console.log(JSON.stringify({ done: order }));
});
orders.on('close', () => process.exit(0));
