// openai's ResponsesWS: a tool's round trip and a chained turn on one connection.
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
