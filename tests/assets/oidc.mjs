// A real OpenID Connect provider (npm `oidc-provider`) on a free port, which can be told to lie: GET /lie?how=NAME.
//
//   node oidc.mjs PACKAGES REDIRECT_URI      prints its port, ends with its input
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [packages, redirect] = process.argv.slice(2)
const require = createRequire(join(packages, 'package.json'))
const load = async name => import(pathToFileURL(require.resolve(name)))
const { default: Provider } = await load('oidc-provider')
const jose = await load('jose')

const { privateKey } = await jose.generateKeyPair('RS256', { extractable: true })
const key = { ...await jose.exportJWK(privateKey), use: 'sig', alg: 'RS256', kid: 'one' }
const other = (await jose.generateKeyPair('RS256')).privateKey
const secret = 'the-secret-of-the-client-of-the-test'

const server = createServer()
await new Promise(ready => server.listen(0, '127.0.0.1', ready))
const issuer = `http://127.0.0.1:${server.address().port}`
const provider = new Provider(issuer, {
  clients: [{ client_id: 'reprieve', client_secret: secret, redirect_uris: [redirect], grant_types: ['authorization_code'], response_types: ['code'] }],
  jwks: { keys: [key] },
  cookies: { keys: ['of the test'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id === 'successor' ? 'ana' : id}@pocket.example`, email_verified: id !== 'mallory' }) }),
})

let how = 'no'
const lies = {
  audience: c => ({ ...c, aud: 'another' }),
  audiences: c => ({ ...c, aud: ['reprieve', 'another'] }),
  nonce: c => ({ ...c, nonce: 'another' }),
  'no-nonce': ({ nonce, ...c }) => c,
  issuer: c => ({ ...c, iss: 'https://other.example' }),
  expired: c => ({ ...c, iat: c.iat - 7200, exp: c.iat - 3600 }),
  none: c => c, hmac: c => c, key: c => c,
  unverified: c => ({ ...c, email_verified: false }),
  stranger: c => ({ ...c, email: 'nobody@pocket.example' }),
  'asked-for': ({ email, ...c }) => c,
  'about-another': ({ email, ...c }) => c,
  'asked-unverified': ({ email, ...c }) => c,
}
const told = { 'about-another': c => ({ ...c, sub: 'another' }), 'asked-unverified': c => ({ ...c, email_verified: false }) }
const lie = async token => {
  const claims = lies[how](jose.decodeJwt(token))
  if (how === 'none') return new jose.UnsecuredJWT(claims).encode()
  const signed = new jose.SignJWT(claims)
  if (how === 'hmac') return signed.setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(secret))
  return signed.setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(how === 'key' ? other : privateKey)
}

const serve = provider.callback()
server.on('request', (request, response) => {
  if (request.url.startsWith('/lie')) {
    how = new URL(request.url, issuer).searchParams.get('how')
    return response.end(how)
  }
  const { writeHead, end } = response
  response.writeHead = function (...given) {
    const to = response.getHeader('location')
    if (how === 'mixed-up' && to?.startsWith(redirect)) response.setHeader('location', to.replace(encodeURIComponent(issuer), 'https%3A%2F%2Fother.example'))
    if (how === 'no-issuer' && to?.startsWith(redirect)) response.setHeader('location', to.replace(/[&?]iss=[^&]*/, ''))
    if (how === 'no-state' && to?.startsWith(redirect)) response.setHeader('location', to.replace(/state=[^&]*/, 'state=guess'))
    return writeHead.apply(this, given)
  }
  if (request.url === '/token' && lies[how]) {
    response.end = function (body, ...rest) {
      const answer = JSON.parse(body)
      if (!answer.id_token) return end.call(this, body, ...rest)
      lie(answer.id_token).then(id_token => {
        const changed = JSON.stringify({ ...answer, id_token })
        response.removeHeader('content-length')
        end.call(this, changed)
      })
      return this
    }
  }
  if (request.url === '/me' && told[how]) {
    response.end = function (body, ...rest) {
      response.removeHeader('content-length')
      return end.call(this, JSON.stringify(told[how](JSON.parse(body))), ...rest)
    }
  }
  serve(request, response)
})
console.log(server.address().port)
process.stdin.resume().on('end', () => process.exit(0))
