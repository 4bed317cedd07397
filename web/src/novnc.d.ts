// What desktop.ts uses of noVNC, which comes without types (its docs/API.md).
declare module '@novnc/novnc' {
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, url: string, options?: { shared?: boolean; wsProtocols?: string[] });
    background: string;
    scaleViewport: boolean;
    focusOnClick: boolean;
    focus(options?: FocusOptions): void;
    disconnect(): void;
    sendCtrlAltDel(): void;
  }
}
