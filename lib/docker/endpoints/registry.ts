/** Registries, asked through us: login, search, what a name stands for there. */
import {CetusError} from '../../base/errors';
import type {RegistryAuth} from '../../schema/docker';
import {readBody} from '../body';
import type {Exchange, Handlers} from '../exchange';
import {parseRegistryAuth} from '../registry-auth';

async function auth(x: Exchange): Promise<void> {
  const {identityToken} = await x.datacenter.images.login(x.caller, await readBody<RegistryAuth>(x, 'systemAuth'));
  x.json(200, {Status: 'Login Succeeded', IdentityToken: identityToken});
}

async function search(x: Exchange): Promise<void> {
  const limit = x.query.text('limit');
  if (limit !== '' && !/^[+-]?\d{1,9}$/.test(limit)) throw new CetusError('invalid', `invalid limit specified: strconv.Atoi: parsing ${JSON.stringify(limit)}: invalid syntax`);
  const results = await x.datacenter.images.search(x.caller, x.query.text('term'), {...(limit === '' ? {} : {limit: Number(limit)}), filters: x.query.filters()}, parseRegistryAuth(x.request.headers['x-registry-auth']));
  x.json(200, results.map(({name, description, isOfficial, stars}) => ({star_count: stars, is_official: isOfficial, name, is_automated: false, description})));
}

async function inspect(x: Exchange): Promise<void> {
  const {descriptor, platforms} = await x.datacenter.images.inspectRemote(x.caller, x.param('name'), parseRegistryAuth(x.request.headers['x-registry-auth']));
  x.json(200, {Descriptor: descriptor, Platforms: platforms});
}

export const registryHandlers: Handlers = {
  SystemAuth: auth,
  ImageSearch: search,
  DistributionInspect: inspect,
};
