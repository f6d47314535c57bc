/**
 * What an engine must be told so that its builds see the account's images as Cetus has them. Pure.
 *
 * Three views are compared: what the engine has, what Cetus has now, and what Cetus had when they were last compared (`known`). Names and images
 * that Cetus had and has no longer go, whatever happens. What only the engine has is another matter: it may be the result of a build that is
 * just now being taken over, so it goes only where nobody builds (`idle`).
 */
export interface EngineImages { /** familiar reference -> image id */ names: ReadonlyMap<string, string>; ids: {has(id: string): boolean} }
export interface CetusImages { names: ReadonlyMap<string, string>; ids: ReadonlySet<string> }
export interface Known { names: Record<string, string>; ids: string[] }

export interface Differences {
  /** Images that the engine lacks, with all their names. */
  load: {imageId: string; names: string[]}[];
  /** Names to set on images that it has, or will have been loaded by then. */
  tag: {name: string; imageId: string}[];
  untag: string[];
  /** Images to remove; one that others stand on stays as long as they do. */
  remove: string[];
}

export function differences(engine: EngineImages, cetus: CetusImages, known: Known, idle: boolean): Differences {
  const load = new Map<string, string[]>([...cetus.ids].filter((id) => !engine.ids.has(id)).map((id) => [id, []]));
  const tag: Differences['tag'] = [];
  for (const [name, imageId] of cetus.names) {
    if (engine.names.get(name) === imageId) continue;
    // It is as it was at the last comparison, and a build has given it to another image meanwhile: that build's result is on its way.
    if (!idle && known.names[name] === imageId && engine.names.has(name)) continue;
    const loaded = load.get(imageId);
    if (loaded) loaded.push(name);
    else if (engine.ids.has(imageId)) tag.push({name, imageId});
  }
  const untag = [...engine.names.keys()].filter((name) => !cetus.names.has(name) && (idle || known.names[name] === engine.names.get(name)));
  const remove = known.ids.filter((id) => engine.ids.has(id) && !cetus.ids.has(id));
  return {load: [...load].map(([imageId, names]) => ({imageId, names})), tag, untag, remove};
}

/** Names that builds have given since, to whatever they built or pulled. */
export function fresh(engine: EngineImages, known: Known, taken: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...engine.names].filter(([name, imageId]) => known.names[name] !== imageId && taken.get(name) !== imageId));
}
