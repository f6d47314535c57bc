/** A row of `docker ps`: GET /containers/json. Hot: 1,000 of them are built per call, so each is one literal and no look-ups elsewhere. */
import type {SeenContainer} from '../../datacenter/verbs';
import type {Container} from '../../schema/container';
import {argv, isLive, mountPoints, networkMode, networkViews, statusText} from './container';

interface PortView { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }

const noSource = (): string => '';

/** `linked`: what containers that are linked to it call it: "/web/db". */
export function containerListEntry(container: SeenContainer, nowMs: number, size?: {sizeRw: number; sizeRootFs: number}, linked: readonly string[] = []): object {
  const annotations = container.spec.hostConfig.Annotations;
  return {
    Id: container.id,
    Names: [`/${container.name}`, ...linked],
    Image: container.imageReference,
    ImageID: container.imageId,
    Command: commandLine(argv(container)),
    Created: Math.floor(Number(container.createdAtNs) / 1e9),
    Ports: ports(container),
    ...(size ? {SizeRw: size.sizeRw, SizeRootFs: size.sizeRootFs} : {}),
    Labels: container.labels,
    State: container.status,
    Status: statusText(container, nowMs),
    HostConfig: annotations && Object.keys(annotations).length ? {NetworkMode: networkMode(container), Annotations: annotations} : {NetworkMode: networkMode(container)},
    NetworkSettings: {Networks: networkViews(container)},
    Mounts: mountPoints(container, noSource),
  };
}

function commandLine(words: string[]): string {
  return words.map((word, n) => (n > 0 && word.includes(' ') ? `'${word}'` : word)).join(' ');
}

function ports(container: Container): PortView[] {
  if (!isLive(container)) return [];
  const views: PortView[] = container.publishedPorts.map((p) => ({IP: p.hostIp || '0.0.0.0', PrivatePort: p.containerPort, PublicPort: p.hostPort, Type: p.protocol}));
  for (const name of Object.keys(container.spec.config.ExposedPorts ?? {})) {
    const [port, protocol = 'tcp'] = name.split('/');
    const number = Number(port);
    if (number > 0 && !container.publishedPorts.some((p) => p.containerPort === number && p.protocol === protocol)) views.push({PrivatePort: number, Type: protocol});
  }
  return views;
}
