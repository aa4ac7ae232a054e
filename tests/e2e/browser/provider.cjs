// A certified OpenID Connect provider as a process, for oidc.cjs: whoever signs in with an e-mail address is that
// person, whatever the password. Settings come by environment: PORT, UI_URL, CLIENT_ID, CLIENT_SECRET.
const { pathToFileURL } = require('node:url');

const { PORT, UI_URL, CLIENT_ID, CLIENT_SECRET } = process.env;

// Its package is a module, for which NODE_PATH does not count.
import(pathToFileURL(require.resolve('oidc-provider'))).then(({ default: Provider }) => {
  const provider = new Provider(`http://127.0.0.1:${PORT}`, {
    clients: [{
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      redirect_uris: [`${UI_URL}/sign-in/oidc/callback`],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    }],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    cookies: { keys: ['for this test only'] },
    findAccount: (_, email) => ({
      accountId: email,
      claims: () => ({ sub: Buffer.from(email).toString('hex'), email, email_verified: true }),
    }),
    pkce: { required: () => true },
  });
  // Its pages would load a font from elsewhere.
  provider.use(async (ctx, next) => {
    await next();
    if (typeof ctx.body === 'string') ctx.body = ctx.body.replace(/@import url\([^)]*\);/, '');
  });
  provider.listen(Number(PORT), '127.0.0.1');
});
