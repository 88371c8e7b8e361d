import type { ReactElement, ReactNode } from "react";
import type { ClientOptions, ConnectionStatus, Task, TaskcastClient, TasksQuery } from "./index.js";

/** Gives its children a client: the one given, or one made of the options when it is first rendered. */
export function TaskcastProvider(props: { client?: TaskcastClient; options?: ClientOptions; children?: ReactNode }): ReactElement;

export function useTaskcastClient(): TaskcastClient;

export interface UseTaskOptions<Selected> {
  /** What of it is needed; the component is rendered again only when that changes. */
  select?: (task: Task) => Selected;
  /** Called when an end is seen: not for one that was there at first, and again when a lost task comes back and ends. */
  onComplete?: (task: Task) => void;
  /** No more than one render in that time; ends are not delayed. */
  throttleMs?: number;
  /** Shown until the service said something, and on a server. */
  initialTask?: Task;
}

/** Undefined: not known yet. Null: the service knows no such task, or does not show it. No id: nothing is watched. */
export function useTask<Selected = Task>(id: string | null | undefined, options?: UseTaskOptions<Selected>): Selected | null | undefined;

/** Newest first. Queries that say the same are one, `filter` aside, which is given a name by `useCallback`. */
export function useTasks(query?: TasksQuery): readonly Task[];

export function useConnection(): ConnectionStatus;
