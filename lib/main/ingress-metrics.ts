/** What an ingress has open, for whoever scrapes /metrics. */
import {Counter, Gauge, type Registry} from 'prom-client';
import type {Ingress} from '../ingress/ingress';

export function measureIngress(ingress: Ingress, registry: Registry): void {
  const registers = [registry];
  new Gauge({
    name: 'cetus_ingress_ports', help: 'Published ports of containers elsewhere: open at this endpoint, or refused because another program has them.', labelNames: ['state'] as const, registers,
    collect() {
      const {open, refused} = ingress.state();
      this.set({state: 'open'}, open.length);
      this.set({state: 'refused'}, refused.length);
    },
  });
  new Gauge({name: 'cetus_ingress_serving', help: '1 where this endpoint opens published ports, 0 where another endpoint of its machine does.', registers, collect() { this.set(ingress.state().duty === 'serving' ? 1 : 0); }});
  new Gauge({name: 'cetus_ingress_connections', help: 'TCP connections under way.', registers, collect() { this.set(ingress.state().connections); }});
  new Gauge({name: 'cetus_ingress_sessions', help: 'UDP clients.', registers, collect() { this.set(ingress.state().sessions); }});
  let counted = 0;
  new Counter({
    name: 'cetus_ingress_turned_away_total', help: 'Connections and datagrams that met a limit, or nobody behind.', registers,
    collect() {
      const {turnedAway} = ingress.state();
      this.inc(turnedAway - counted);
      counted = turnedAway;
    },
  });
}
